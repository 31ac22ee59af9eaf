"""Does the cheap score rank policies as an expensive, independent one does?

``python -m studies.proxy.pictures`` makes the pictures of many policies of a shipped model, ``python -m
studies.proxy.validity`` compares every estimator on few of them with the truth on many.
"""
