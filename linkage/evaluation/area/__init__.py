"""The parts of a made-up area: names, places, families, what each agency holds of them, and with which errors."""
