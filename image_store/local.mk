# image_store/: complete images and the catalogue that knows them.
noinst_LIBRARIES += libimage_store.a
libimage_store_a_SOURCES = image_store/file_system.h image_store/file_system.cpp image_store/real_file_system.cpp \
  image_store/names.h image_store/names.cpp image_store/hash.h image_store/hash.cpp image_store/seal.h image_store/seal.cpp \
  image_store/chunker.h image_store/chunker.cpp image_store/codec.h image_store/codec.cpp image_store/pack.h image_store/pack.cpp \
  image_store/wire.h image_store/manifest.h image_store/manifest.cpp image_store/manifest_head.cpp \
  image_store/manifest_writer.h image_store/manifest_writer.cpp image_store/chunk_index.h image_store/chunk_index.cpp \
  image_store/work.h image_store/work.cpp image_store/image_tree.h image_store/image_tree.cpp \
  image_store/image_reader.h image_store/image_reader.cpp image_store/new_files.h image_store/new_files.cpp \
  image_store/chunk_ranges.h image_store/chunk_ranges.cpp image_store/store.h image_store/store_put.cpp image_store/store_get.cpp image_store/store_compact.cpp image_store/store_files.cpp \
  image_store/catalogue.h image_store/catalogue.cpp image_store/catalogue_store.cpp image_store/catalogue_whole.cpp \
  image_store/catalogue_impl.h image_store/catalogue_schema.h image_store/catalogue_sql.h \
  image_store/store_id.h image_store/store_id.cpp image_store/retention.h image_store/retention.cpp image_store/sqlite.h image_store/sqlite.cpp
libimage_store_a_CXXFLAGS = $(AM_CXXFLAGS) $(SQLITE_CFLAGS) $(BLAKE3_CFLAGS) $(ZSTD_CFLAGS)
IMAGE_STORE_LIBS = libimage_store.a $(SQLITE_LIBS) $(BLAKE3_LIBS) $(ZSTD_LIBS)

# the other sides of the fault seam, for tests
check_LIBRARIES = libimage_store_testing.a
libimage_store_testing_a_SOURCES = image_store/memory_file_system.h image_store/memory_file_system.cpp \
  image_store/faulty_file_system.h image_store/faulty_file_system.cpp \
  image_store/faulty_database.h image_store/faulty_database.cpp
libimage_store_testing_a_CXXFLAGS = $(AM_CXXFLAGS) $(SQLITE_CFLAGS)
