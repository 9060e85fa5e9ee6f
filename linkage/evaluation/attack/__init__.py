"""The privacy benchmark: published attacks, written anew from the papers, on real encodings of people who never lived.

An attack sees what lies in the vault (wire columns; never a key, never who is who) and a register in clear; only the
judge knows the truth.  Nothing here is run on live data.
"""
