// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/messages.h"

#include "image_store/names.h"

namespace sckpt {

rpc::StoredImage to_message(const StoredImage& image) {
    rpc::StoredImage message;
    message.set_manifest(image.manifest);
    message.set_digest(image.digest);
    message.set_plain_bytes(image.plain_bytes);
    message.set_new_bytes(image.new_bytes);
    for (const PackUse& use : image.packs) {
        rpc::Pack& pack = *message.add_packs();
        pack.set_path(use.path);
        pack.set_bytes(use.bytes);
        pack.set_used(use.used);
    }
    return message;
}

Result<StoredImage> to_stored(const rpc::StoredImage& image) {
    SCKPT_TRY(check_store_path(image.manifest()));
    StoredImage stored{image.manifest(), image.digest(), image.plain_bytes(), image.new_bytes(), {}};
    for (const rpc::Pack& pack : image.packs()) {
        SCKPT_TRY(check_store_path(pack.path()));
        stored.packs.push_back({pack.path(), pack.bytes(), pack.used()});
    }
    return stored;
}

Result<std::vector<StoredTask>> to_stored(const google::protobuf::RepeatedPtrField<rpc::StoredTask>& images) {
    std::vector<StoredTask> tasks;
    for (const rpc::StoredTask& task : images) {
        SCKPT_ASSIGN(StoredImage image, to_stored(task.image()));
        tasks.push_back({task.task(), std::move(image), task.frozen_ms()});
    }
    return tasks;
}

std::vector<StoredImage> images_of(const std::vector<StoredTask>& tasks) {
    std::vector<StoredImage> images;
    for (const StoredTask& task : tasks) images.push_back(task.image);
    return images;
}

google::protobuf::RepeatedPtrField<rpc::File> to_message(const std::vector<UserFile>& files) {
    google::protobuf::RepeatedPtrField<rpc::File> messages;
    for (const UserFile& file : files) {
        rpc::File& message = *messages.Add();
        message.set_path(file.path);
        message.set_inode(file.inode);
        message.set_size(file.size);
        message.set_append(file.append);
        message.set_stdio(file.stdio);
    }
    return messages;
}

std::vector<UserFile> to_files(const google::protobuf::RepeatedPtrField<rpc::File>& files) {
    std::vector<UserFile> records;
    for (const rpc::File& file : files) records.push_back({file.path(), file.inode(), file.size(), file.append(), file.stdio()});
    return records;
}

}  // namespace sckpt
