"""A pruned model without what changes nothing."""
