"""What programs of other people import: `anamnesis.client` asks a server of Anamnesis over HTTP. It knows nothing of the server's code."""
