"""Readers of the data sets that audiosearch trains and is measured on."""
