"""The ledger of tokens and money: reserved before they are spent, counted by window and by day, shown and forecast."""
