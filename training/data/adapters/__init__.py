"""One file for each published data set, and one for anybody's own."""
