"""Files, whatever is in them: whole writes, digests of content, the cache folder."""
