"""A judge that the search did not ask, for the last round: it sees what a fooled judge brought to the top."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotune.core.errors import InputError
from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.judges import Judges
from autotune.quality import Objective
from autotune.quality.jury import load_judges, suited
from autotune.quality.panel import JUDGES, TEXTURES, Panel, Sources

SECOND_OPINION: str | None = TEXTURES
"""Who is asked where nobody says who; None asks nobody.

Of the judges that need no download it agrees best on its own with judges that no search asks
(``studies.proxy.validity``).
"""

NOBODY = "none"
"""What options name to ask nobody."""

PAIRS = 128
"""Pictures of the last round that are compared with the exact run's.

Of 64 the drift is the widest part of a verdict's interval; twice as many make a last round a tenth longer.
"""


@dataclass(frozen=True, eq=False)
class SecondOpinion:
    """A judge of held-out pictures.

    Attributes:
        name: Of the judge.
        objective: Its loss, of the evaluator's evaluations.
    """

    name: str
    objective: Objective

    @staticmethod
    def of(name: str | None, evaluator: Evaluator) -> SecondOpinion | None:
        """What ``evaluator``, with the judges of :func:`judges_of_last_round`, has measured for it.

        Raises:
            InputError: it cannot tell the full run's pictures from bad ones.
        """
        return None if name is None else SecondOpinion(name, evaluator.objective.by(name))


def second_name(given: str | None) -> str | None:
    """Who is asked, by what the options say."""
    return None if given == NOBODY else given or SECOND_OPINION


def judges_of_last_round(judges: Judges, name: str | None, *, device: str, size: tuple[int, int]) -> Judges:
    """The judges of the search, and one more, which is measured beside them and has no part in their loss.

    Args:
        judges: Of the search.
        name: Of the one more; None is nobody.
        device: Where networks run.
        size: Height and width of the pictures.

    Raises:
        InputError: there is no such judge, the search asks it itself, it has nothing to say of such pictures or
            inputs, or what it needs is missing.
    """
    if name is None:
        return replace(judges, error_pictures=_pairs(judges, judges.panel))
    panel = Panel(dict(judges.panel.weights) | {name: judges.panel.weight(name)}, judges.panel.ceiling)
    if panel.weight(name):
        others = ", ".join(each for each in JUDGES if not panel.weight(each))
        raise InputError(f"judge {name} is one that the search asks; a second opinion is another's, such as {others}")
    if JUDGES[name].kind == "alignment" and not judges.text:
        raise InputError(
            f"judge {name} matches pictures with prompts, and the inputs have no prompts that differ; take another"
        )
    sources = Sources(judges.scorer, judges.network or judges.scorer, device)
    (further,) = load_judges(suited(Panel({name: 1.0}), sources, size, asked=True), sources, size) or (None,)
    known = {each.name for each in judges.further}
    return replace(
        judges,
        panel=panel,
        further=judges.further if further is None or name in known else (*judges.further, further),
        error_pictures=_pairs(judges, panel),
    )


def _pairs(judges: Judges, panel: Panel) -> int:
    return max(judges.error_pictures, PAIRS) if panel.errors else judges.error_pictures
