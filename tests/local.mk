# tests/: unit tests (Catch2) run by make check; the system tests need a cluster and are run by ./dev check.
if HAVE_CATCH2
check_PROGRAMS += unit_tests
TESTS += unit_tests
endif
unit_tests_SOURCES =
unit_tests_CXXFLAGS = $(AM_CXXFLAGS) $(CATCH2_CFLAGS) $(SQLITE_CFLAGS) $(BLAKE3_CFLAGS) $(ZSTD_CFLAGS)
unit_tests_LDADD = libstore_client.a libimage_store_testing.a $(IMAGE_STORE_LIBS) libbackend.a libcommon.a $(YAML_LIBS) $(CATCH2_LIBS)
EXTRA_unit_tests_DEPENDENCIES = sckpt-store$(EXEEXT)
include tests/unit/local.mk
TESTS += tests/unit/includes_test.sh
EXTRA_DIST += tests/unit/includes_test.sh
# the cluster, what runs on it, and how it is measured: run by ./dev, from a checkout or an unpacked distribution
EXTRA_DIST += tests/bed tests/system tests/faults tests/bench tests/workloads
# the bed's shared file system, where root is squashed
if HAVE_FUSE3
noinst_PROGRAMS += squash_fs
squash_fs_SOURCES = tests/workloads/squash_fs.cpp
squash_fs_CXXFLAGS = $(AM_CXXFLAGS) $(FUSE3_CFLAGS)
squash_fs_LDADD = $(FUSE3_LIBS)
endif
# the catalogue's figures
noinst_PROGRAMS += catalogue_bench
catalogue_bench_SOURCES = tests/bench/catalogue_bench.cpp
catalogue_bench_CXXFLAGS = $(AM_CXXFLAGS) $(SQLITE_CFLAGS)
catalogue_bench_LDADD = $(IMAGE_STORE_LIBS) libcommon.a
# the image store by itself, for measurements
noinst_PROGRAMS += store_tool
store_tool_SOURCES = tests/bench/store_tool.cpp
store_tool_CXXFLAGS = $(AM_CXXFLAGS) $(ZSTD_CFLAGS) $(BLAKE3_CFLAGS)
store_tool_LDADD = $(IMAGE_STORE_LIBS) libbackend.a libcommon.a $(YAML_LIBS)
# ten thousand simulated nodes
noinst_PROGRAMS += fanout_nodes
fanout_nodes_SOURCES = tests/bench/fanout_nodes.cpp
fanout_nodes_CXXFLAGS = $(AM_CXXFLAGS) $(GRPC_CFLAGS)
fanout_nodes_LDADD = $(RPC_LIBS)
$(fanout_nodes_OBJECTS): $(GENERATED_RPC_H)
