"""RecordIO files of labelled images."""
