"""What every layer may use: files, hashes, formats, configuration."""
