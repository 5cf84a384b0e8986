"""Who pays: budgets, bills, and what is told of them."""
