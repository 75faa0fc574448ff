# What updaterd/artifact/native/*.c exports, where there was a compiler.
