# one line a file: unit_tests_SOURCES += tests/unit/<dir>_<file>_test.cpp
