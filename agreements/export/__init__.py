"""What a set of agreements says, in the languages of others: Cedar, ODRL with DPV, plain English, Article 30, print.

Every module here is a pure function of documents to text; none of it decides anything.
"""
