"""How good generated videos are, budget by budget: real clips, samples, scores, tables, pages."""
