// SPDX-License-Identifier: GPL-3.0-or-later
//
// What nodes and sckptctld tell each other about images: our structs as messages, and back.
#pragma once

#include <google/protobuf/repeated_ptr_field.h>
#include <vector>

#include "common/result.h"
#include "image_store/catalogue.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

rpc::StoredImage to_message(const StoredImage& image);
Result<StoredImage> to_stored(const rpc::StoredImage& image);  // as a node tells it; Errc::invalid where a path is none of the store's
Result<std::vector<StoredTask>> to_stored(const google::protobuf::RepeatedPtrField<rpc::StoredTask>& images);
std::vector<StoredImage> images_of(const std::vector<StoredTask>& tasks);

google::protobuf::RepeatedPtrField<rpc::File> to_message(const std::vector<UserFile>& files);
std::vector<UserFile> to_files(const google::protobuf::RepeatedPtrField<rpc::File>& files);

}  // namespace sckpt
