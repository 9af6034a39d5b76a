"""One module a page. Each names its pages; `catalogue.py` puts them in order."""
