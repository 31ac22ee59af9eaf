"""Does the cheap score rank policies as an expensive, independent one does?

``python -m studies.proxy.pictures`` makes the pictures of many policies of a shipped model and of their exact runs,
``python -m studies.proxy.validity`` compares judges on few of them with the truth, ``python -m
studies.proxy.estimators`` the estimators of a distance.
"""
