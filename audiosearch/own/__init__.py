"""Classifiers of a user's own classes, in use: what `audiosearch.lab` trains, any command hears.

Needs neither Keras nor scikit-learn.
"""
