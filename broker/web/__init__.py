"""The broker's own pages, for information governance.  No page has a field for a name."""
