"""How the shipped emoji models are made: data, autoencoder, CLIP, denoiser, export.

Run in this order, each resumable and each with ``--help``::

    python -m studies.emoji.data
    python -m studies.emoji.train_autoencoder
    python -m studies.emoji.train_clip
    python -m studies.emoji.train_denoiser --arch unet
    python -m studies.emoji.export
"""
