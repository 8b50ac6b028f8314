// SPDX-License-Identifier: GPL-3.0-or-later
//
// Which store this is: a file store.id at its top, made once. An empty mount point, or the store of another cluster, is told by it from the
// store that the catalogue knows, before anything in it is read or written.
#pragma once

#include <string>

#include "common/result.h"
#include "image_store/file_system.h"

namespace sckpt {

inline constexpr const char* kStoreIdFile = "store.id";

struct StoreId {
    std::string id;       // a UUID
    std::string cluster;  // Slurm's ClusterName
};

// Errc::not_found: there is none. Errc::corrupt: its making was cut off, or it was changed.
Result<StoreId> read_store_id(FileSystem& store);
// A new one, durably. Errc::exists.
Result<StoreId> make_store_id(FileSystem& store, const std::string& cluster);

// Makes it the store of this cluster, unless it is that already. known: the id that the catalogue has, if any; where that store seems to be
// missing it is not mounted, so no other one is made: Errc::denied. Errc::exists: it is another store.
struct MadeStore {
    StoreId store;
    bool is_new = false;
};
Result<MadeStore> make_store(FileSystem& store, const std::string& cluster, const std::string& known);

}  // namespace sckpt
