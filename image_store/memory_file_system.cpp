// SPDX-License-Identifier: GPL-3.0-or-later
//
// Each file and each directory is there twice: as it is seen, and as the disk has it; between the two lie the changes that were
// not made durable yet.
#include "image_store/memory_file_system.h"

#include <algorithm>
#include <format>
#include <map>
#include <random>
#include <utility>

#include "image_store/names.h"

namespace sckpt {
namespace {

using Entropy = std::mt19937_64;

// A write, or a new size.
struct Edit {
    std::uint64_t offset = 0;
    std::string bytes;
    bool truncates = false;  // to `offset`

    void apply(std::string& to) const {
        if (truncates) return to.resize(offset);
        if (bytes.empty()) return;
        if (to.size() < offset + bytes.size()) to.resize(offset + bytes.size());
        to.replace(offset, bytes.size(), bytes);
    }
};

}  // namespace

struct MemoryFileSystem::Node {
    using Entries = std::map<std::string, NodePtr>;
    bool directory = false;
    std::string bytes, durable_bytes;
    std::vector<Edit> unsynced;
    Entries entries, durable_entries;
    std::int64_t modified = 0;

    void edit(Edit edit) {
        edit.apply(bytes);
        unsynced.push_back(std::move(edit));
    }
    void sync() {
        durable_bytes = bytes;
        unsynced.clear();
    }
    static std::uint64_t size_of(const Node& node) {
        std::uint64_t size = node.bytes.size();
        for (const auto& [name, child] : node.entries) size += size_of(*child);
        return size;
    }
    // What a disk has of `node` after a power failure.
    static NodePtr after_failure(const Node& node, Survival survival, Entropy& entropy);
};

MemoryFileSystem::NodePtr MemoryFileSystem::Node::after_failure(const Node& node, Survival survival, Entropy& entropy) {
    auto left = std::make_shared<Node>();
    left->directory = node.directory;
    left->modified = node.modified;
    left->durable_bytes = node.durable_bytes;
    for (Edit edit : node.unsynced) {
        const std::uint64_t chance = entropy() % 3;
        if (survival == Survival::none || (survival == Survival::some && chance == 0)) continue;
        if (survival == Survival::some && chance == 1) edit.bytes.resize(entropy() % (edit.bytes.size() + 1));
        edit.apply(left->durable_bytes);
    }
    left->bytes = left->durable_bytes;
    for (const auto& [name, child] : node.durable_entries) left->durable_entries[name] = after_failure(*child, survival, entropy);
    left->entries = left->durable_entries;
    return left;
}

class MemoryFileSystem::OpenFile final : public File {
   public:
    OpenFile(MemoryFileSystem& files, NodePtr node, bool writable) : files_(files), node_(std::move(node)), writable_(writable) {}

    Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> to) override {
        const std::scoped_lock lock(files_.mutex_);
        if (offset >= node_->bytes.size()) return 0;
        const std::size_t size = std::min(to.size(), node_->bytes.size() - offset);
        std::ranges::copy(std::as_bytes(std::span(node_->bytes)).subspan(offset, size), to.begin());
        return size;
    }

    Result<> write_at(std::uint64_t offset, std::span<const std::byte> bytes) override {
        return edit({offset, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())}, offset + bytes.size());
    }

    Result<> truncate(std::uint64_t size) override { return edit({size, {}, true}, size); }

    Result<std::uint64_t> size() override {
        const std::scoped_lock lock(files_.mutex_);
        return node_->bytes.size();
    }

    void start_writing(std::uint64_t, std::uint64_t) override {}

    Result<> sync() override {
        const std::scoped_lock lock(files_.mutex_);
        node_->sync();
        return {};
    }

   private:
    Result<> edit(Edit edit, std::uint64_t end) {
        const std::scoped_lock lock(files_.mutex_);
        if (!writable_) return fail_errno("write", EBADF);
        const std::uint64_t size = node_->bytes.size();
        if (end > size && files_.used() + (end - size) > files_.capacity_) return fail_errno("write", ENOSPC);
        node_->edit(std::move(edit));
        node_->modified = files_.now_;
        return {};
    }

    MemoryFileSystem& files_;
    const NodePtr node_;
    const bool writable_;
};

MemoryFileSystem::MemoryFileSystem(std::uint64_t capacity) : top_(std::make_shared<Node>()), capacity_(capacity) {
    top_->directory = true;
}

MemoryFileSystem::~MemoryFileSystem() = default;

// ---- names; called with the mutex held ----

Result<MemoryFileSystem::NodePtr> MemoryFileSystem::find(const std::string& path) const {
    if (path.empty()) return top_;
    SCKPT_ASSIGN(const NodePtr directory, find_directory(directory_of(path)));
    const auto entry = directory->entries.find(base_of(path));
    if (entry == directory->entries.end()) return fail_errno("open " + path, ENOENT);
    return entry->second;
}

Result<MemoryFileSystem::NodePtr> MemoryFileSystem::find_file(const std::string& path) const {
    SCKPT_ASSIGN(NodePtr node, find(path));
    if (node->directory) return fail(Errc::invalid, path + " is not a regular file");
    return node;
}

Result<MemoryFileSystem::NodePtr> MemoryFileSystem::find_directory(const std::string& path) const {
    SCKPT_ASSIGN(NodePtr node, find(path));
    if (!node->directory) return fail(Errc::invalid, path + " is not a directory");
    return node;
}

void MemoryFileSystem::apply(Change change) {
    for (const auto& [directory, name, node] : change) {
        if (node) directory->entries[name] = node;
        else directory->entries.erase(name);
    }
    changes_.push_back(std::move(change));
}

// Changes the same names as the disk has them; what older changes would still do to them does not count any more.
void MemoryFileSystem::make_durable(std::size_t at) {
    for (const auto& [directory, name, node] : changes_[at]) {
        if (node) directory->durable_entries[name] = node;
        else directory->durable_entries.erase(name);
        const auto same = [&](const NameChange& other) { return other.directory == directory && other.name == name; };
        for (std::size_t older = 0; older < at; ++older) std::erase_if(changes_[older], same);
    }
}

std::uint64_t MemoryFileSystem::used() const { return Node::size_of(*top_); }

// ---- the calls ----

Result<std::unique_ptr<File>> MemoryFileSystem::open(const std::string& path) {
    const std::scoped_lock lock(mutex_);
    SCKPT_ASSIGN(NodePtr node, find_file(path));
    return std::make_unique<OpenFile>(*this, std::move(node), false);
}

Result<std::unique_ptr<File>> MemoryFileSystem::create(const std::string& path) {
    const std::scoped_lock lock(mutex_);
    SCKPT_ASSIGN(NodePtr directory, find_directory(directory_of(path)));
    if (directory->entries.contains(base_of(path))) return fail_errno("create " + path, EEXIST);
    auto node = std::make_shared<Node>();
    node->modified = now_;
    apply({{std::move(directory), base_of(path), node}});
    return std::make_unique<OpenFile>(*this, std::move(node), true);
}

Result<> MemoryFileSystem::make_directory(const std::string& path) {
    const std::scoped_lock lock(mutex_);
    SCKPT_ASSIGN(NodePtr directory, find_directory(directory_of(path)));
    if (directory->entries.contains(base_of(path))) {
        SCKPT_TRY(find_directory(path));
        return {};
    }
    auto node = std::make_shared<Node>();
    node->directory = true;
    node->modified = now_;
    apply({{std::move(directory), base_of(path), std::move(node)}});
    return {};
}

Result<> MemoryFileSystem::rename(const std::string& from, const std::string& to) {
    const std::scoped_lock lock(mutex_);
    SCKPT_ASSIGN(NodePtr node, find_file(from));
    SCKPT_ASSIGN(NodePtr source, find_directory(directory_of(from)));
    SCKPT_ASSIGN(NodePtr target, find_directory(directory_of(to)));
    apply({{std::move(source), base_of(from), nullptr}, {std::move(target), base_of(to), std::move(node)}});
    return {};
}

Result<> MemoryFileSystem::remove(const std::string& path) {
    const std::scoped_lock lock(mutex_);
    SCKPT_TRY(find_file(path));
    SCKPT_ASSIGN(NodePtr directory, find_directory(directory_of(path)));
    apply({{std::move(directory), base_of(path), nullptr}});
    return {};
}

Result<> MemoryFileSystem::remove_directory(const std::string& path) {
    const std::scoped_lock lock(mutex_);
    SCKPT_ASSIGN(const NodePtr node, find_directory(path));
    if (!node->entries.empty()) return fail(Errc::busy, "remove directory " + path + ": it is not empty");
    SCKPT_ASSIGN(NodePtr directory, find_directory(directory_of(path)));
    apply({{std::move(directory), base_of(path), nullptr}});
    return {};
}

Result<> MemoryFileSystem::sync_directory(const std::string& path) {
    const std::scoped_lock lock(mutex_);
    SCKPT_ASSIGN(const NodePtr directory, find_directory(path));
    for (std::size_t at = 0; at < changes_.size(); ++at) {
        if (!std::ranges::contains(changes_[at], directory, &NameChange::directory)) continue;
        make_durable(at);
        changes_[at].clear();
    }
    std::erase_if(changes_, [](const Change& change) { return change.empty(); });
    return {};
}

Result<std::vector<DirectoryEntry>> MemoryFileSystem::list(const std::string& path) {
    const std::scoped_lock lock(mutex_);
    SCKPT_ASSIGN(const NodePtr directory, find_directory(path));
    std::vector<DirectoryEntry> entries;
    for (const auto& [name, node] : directory->entries)
        entries.push_back({name, node->directory, node->bytes.size(), node->modified});
    return entries;
}

Result<Space> MemoryFileSystem::space() {
    const std::scoped_lock lock(mutex_);
    return Space{capacity_, capacity_ - std::min(capacity_, used())};
}

// ---- for tests ----

void MemoryFileSystem::power_failure(Survival survival, std::uint64_t seed) {
    const std::scoped_lock lock(mutex_);
    Entropy entropy(seed);
    for (std::size_t at = 0; at < changes_.size(); ++at) {
        const bool chosen = entropy() % 2 == 0;
        if (survival == Survival::all || (survival == Survival::some && chosen)) make_durable(at);
    }
    changes_.clear();
    top_ = Node::after_failure(*top_, survival, entropy);
}

void MemoryFileSystem::set_time(std::int64_t now) {
    const std::scoped_lock lock(mutex_);
    now_ = now;
}

void MemoryFileSystem::set_capacity(std::uint64_t bytes) {
    const std::scoped_lock lock(mutex_);
    capacity_ = bytes;
}

Result<> MemoryFileSystem::damage(const std::string& path, std::uint64_t at) {
    const std::scoped_lock lock(mutex_);
    SCKPT_ASSIGN(const NodePtr node, find_file(path));
    if (at >= node->bytes.size()) return fail(Errc::invalid, std::format("{} has no byte {}", path, at));
    node->edit({at, std::string(1, static_cast<char>(node->bytes[at] ^ 1))});
    node->sync();
    return {};
}

}  // namespace sckpt
