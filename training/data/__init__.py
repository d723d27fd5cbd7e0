"""Real data for training: records of any source, their checks, splits, preparation and loading.

The way of the data: an adapter finds the records of a data set (``adapters``), a record is loaded
(``loading``), prepared on the network's grid (``preparation``), kept on disk (``cache``) and put into
batches (``dataset``); ``splits`` says which records train and which test.
"""
