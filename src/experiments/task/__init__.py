"""What is learned: how labels are encoded, outputs measured, drawn and described."""
