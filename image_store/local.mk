# image_store/: complete images and the catalogue that knows them.
noinst_LIBRARIES += libimage_store.a
libimage_store_a_SOURCES = image_store/store.h image_store/store.cpp image_store/manifest.h image_store/manifest.cpp \
  image_store/tree.h image_store/tree.cpp image_store/hash.h image_store/hash.cpp \
  image_store/catalogue.h image_store/catalogue.cpp image_store/catalogue_sql.h image_store/sqlite.h image_store/sqlite.cpp
libimage_store_a_CXXFLAGS = $(AM_CXXFLAGS) $(SQLITE_CFLAGS) $(BLAKE3_CFLAGS)
IMAGE_STORE_LIBS = libimage_store.a $(SQLITE_LIBS) $(BLAKE3_LIBS)
