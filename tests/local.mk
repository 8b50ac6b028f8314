# tests/: unit tests (Catch2) run by make check; the system tests need a cluster and are run by ./dev check.
if HAVE_CATCH2
check_PROGRAMS += unit_tests
TESTS += unit_tests
endif
unit_tests_SOURCES =
unit_tests_CXXFLAGS = $(AM_CXXFLAGS) $(CATCH2_CFLAGS) $(SQLITE_CFLAGS) $(BLAKE3_CFLAGS)
unit_tests_LDADD = $(IMAGE_STORE_LIBS) libbackend.a libcommon.a $(YAML_LIBS) $(CATCH2_LIBS)
include tests/unit/local.mk
TESTS += tests/unit/includes_test.sh
EXTRA_DIST += tests/unit/includes_test.sh
# the cluster, what runs on it, and how it is measured: run by ./dev, from a checkout or an unpacked distribution
EXTRA_DIST += tests/bed tests/system tests/faults tests/bench tests/workloads
