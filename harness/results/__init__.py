"""What a run came to: verdicts, findings and the record, as typed data that every other part reads."""
