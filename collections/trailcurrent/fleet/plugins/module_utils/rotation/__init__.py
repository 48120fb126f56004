"""New values for an RV's secrets, everywhere that they are used."""
