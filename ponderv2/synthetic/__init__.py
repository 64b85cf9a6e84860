"""A generator of furnished rooms: geometry, materials, cameras, sensor."""
