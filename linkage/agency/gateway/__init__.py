"""Pages on the agency's own network: names are typed and encoded here, and never leave.

What goes to the broker is an encoded search, a keyed token of the case reference and a signed statement of who asks.
"""
