"""Its place puts this folder on the import path: what several shelves share lies here."""
