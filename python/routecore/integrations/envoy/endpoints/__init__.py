"""Where a picker's endpoints come from, and which of them there are now."""
