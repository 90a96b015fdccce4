"""One file a family of transformers: how its patches fold, and how its call is made."""
