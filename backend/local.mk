# backend/: what can dump and restore a process tree.
noinst_LIBRARIES += libbackend.a
libbackend_a_SOURCES = backend/backend.h backend/backend.cpp
