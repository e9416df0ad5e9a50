"""What the data is: frozen records, Arrow and Hugging Face features, errors. Imports nothing else of ours."""
