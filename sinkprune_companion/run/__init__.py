"""What a notebook's run needs: checked parameters, records, and publishing."""
