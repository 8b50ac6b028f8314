// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue's file at the start of sckptctld: a damaged one is put aside, never repaired and never removed, and a new one is begun,
// which is then rebuilt from the store.
#pragma once

#include <cstdint>
#include <string>

#include "common/result.h"
#include "image_store/catalogue.h"

namespace sckpt {

struct OpenedCatalogue {
    Catalogue catalogue;
    std::string note;  // what an administrator should know; "" when there is nothing
};
Result<OpenedCatalogue> open_catalogue(const std::string& path, std::int64_t now);

}  // namespace sckpt
