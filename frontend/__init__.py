"""What people write: models, training and data. Imports all floors below."""
