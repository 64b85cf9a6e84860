"""The tables of the index of nuScenes in SQL, and the joins that fill the large ones on disk."""

from __future__ import annotations

FORMAT = 4
"""Of the index; raised whenever the same tables give another one."""
SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE scene (id INTEGER PRIMARY KEY, token, name TEXT, location TEXT);
CREATE TABLE sample (id INTEGER PRIMARY KEY, token, scene INTEGER, number INTEGER, timestamp INTEGER);
CREATE TABLE category (id INTEGER PRIMARY KEY, name TEXT, label INTEGER);
CREATE TABLE channel (id INTEGER PRIMARY KEY, name TEXT, modality TEXT);
CREATE TABLE calibration (
    id INTEGER PRIMARY KEY, x REAL, y REAL, z REAL, qw REAL, qx REAL, qy REAL, qz REAL, intrinsics TEXT
);
CREATE TABLE data (
    scene INTEGER, channel INTEGER, timestamp INTEGER, token, sample INTEGER, is_key INTEGER,
    calibration INTEGER, filename TEXT, width INTEGER, height INTEGER,
    x REAL, y REAL, z REAL, qw REAL, qx REAL, qy REAL, qz REAL,
    PRIMARY KEY (scene, channel, timestamp, token)
) WITHOUT ROWID;
CREATE TABLE lidarseg (token PRIMARY KEY, filename TEXT) WITHOUT ROWID;
CREATE TABLE box (
    sample INTEGER, number INTEGER, token, instance INTEGER, category INTEGER, attribute INTEGER,
    visibility INTEGER, n_lidar INTEGER, n_radar INTEGER, x REAL, y REAL, z REAL, width REAL, length REAL,
    height REAL, qw REAL, qx REAL, qy REAL, qz REAL, vx REAL, vy REAL, vz REAL,
    PRIMARY KEY (sample, number)
) WITHOUT ROWID;
"""
SCRATCH = """
CREATE TABLE scratch.pose (token, x, y, z, qw, qx, qy, qz);
CREATE TABLE scratch.data (
    scene, channel, timestamp, token, sample, is_key, calibration, filename, width, height, pose
);
CREATE TABLE scratch.box (
    token, sample, instance, attribute, visibility, n_lidar, n_radar, x, y, z, width, length, height,
    qw, qx, qy, qz, previous, next
);
"""
FILL_DATA = """
INSERT INTO data
SELECT d.scene, d.channel, d.timestamp, d.token, d.sample, d.is_key, d.calibration, d.filename, d.width,
    d.height, p.x, p.y, p.z, p.qw, p.qx, p.qy, p.qz
FROM scratch.data d JOIN scratch.pose p ON p.token = d.pose ORDER BY d.scene, d.channel, d.timestamp, d.token
"""
FILL_BOXES = """
INSERT INTO box
SELECT b.sample, ROW_NUMBER() OVER (PARTITION BY b.sample ORDER BY b.rowid) - 1, b.token,
    b.instance % 4294967296, b.instance / 4294967296, b.attribute, b.visibility, b.n_lidar, b.n_radar,
    b.x, b.y, b.z, b.width, b.length, b.height, b.qw, b.qx, b.qy, b.qz, b.vx, b.vy, b.vz
FROM (
    SELECT b.rowid, b.*,
        CASE WHEN seconds > 0 AND seconds <= most THEN (last_x - first_x) / seconds END AS vx,
        CASE WHEN seconds > 0 AND seconds <= most THEN (last_y - first_y) / seconds END AS vy,
        CASE WHEN seconds > 0 AND seconds <= most THEN (last_z - first_z) / seconds END AS vz
    FROM (
        SELECT b.rowid, b.*,
            COALESCE(n.x, b.x) AS last_x, COALESCE(n.y, b.y) AS last_y, COALESCE(n.z, b.z) AS last_z,
            COALESCE(p.x, b.x) AS first_x, COALESCE(p.y, b.y) AS first_y, COALESCE(p.z, b.z) AS first_z,
            1e-6 * (COALESCE(ns.timestamp, s.timestamp) - COALESCE(ps.timestamp, s.timestamp)) AS seconds,
            CASE WHEN n.token IS NOT NULL AND p.token IS NOT NULL THEN 3.0 ELSE 1.5 END AS most
        FROM scratch.box b JOIN sample s ON s.id = b.sample
            LEFT JOIN scratch.box p ON p.token = b.previous LEFT JOIN sample ps ON ps.id = p.sample
            LEFT JOIN scratch.box n ON n.token = b.next LEFT JOIN sample ns ON ns.id = n.sample
    ) b
) b
"""
"""Velocities as the development kit computes them: between the neighbours of an annotation, over the times of
their samples; one-sided at the ends of a track; unknown (NULL) over more than 1.5 s, 3 s between two
neighbours."""
