"""Procedural furnished rooms: layout, furniture, materials, photographs, a simulated scan. Metres, z up."""
