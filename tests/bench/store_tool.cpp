// SPDX-License-Identifier: GPL-3.0-or-later
//
// The image store by itself, for measurements: no daemon, no service user, a key of its own.
//   store_tool put STORE IMAGE [--base MANIFEST] [--threads N] [--no-pages]
//              stores the files of the directory IMAGE (CRIU's, its page maps are used); STORE is made when it is not there
//   store_tool get STORE MANIFEST TARGET [--threads N] [--verify]
//              reads it back, verified, into the directory TARGET (made; empty); --verify: then reads the files once more and
//              compares them with the manifest, as a restore does
//   store_tool check STORE MANIFEST [--threads N]          reads and verifies every chunk
// MANIFEST is the path below STORE that put has printed. One line of JSON comes to standard output: "seconds" (wall clock of the
// operation, all of it durable), "cpu_seconds", "peak_rss" (bytes, of the process), "plain_bytes"; put: "manifest", "new_bytes"
// and "packs" (path, bytes, used); check: "faults".
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <optional>
#include <string>

#include <fcntl.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "image_store/store.h"

using namespace sckpt;
using Json = nlohmann::json;

namespace {

struct Arguments {
    std::string store, image, manifest, base, target;
    int threads = 2;
    bool no_pages = false, verify = false;
};

Result<std::unique_ptr<FileSystem>> open_top(const std::string& path) {
    SCKPT_TRY(make_directories(path, 0700));
    SCKPT_ASSIGN(UniqueFd top, open_file(path, O_RDONLY | O_DIRECTORY));
    return real_file_system(std::move(top));
}

// The key is the same in every run: what is measured is not who may make seals.
Result<SealKeys> bench_keys() { return SealKeys::parse("0badcafe " + std::string(64, '5') + "\n"); }

Result<Manifest> open_manifest(FileSystem& store, const std::string& path) {
    SCKPT_ASSIGN(const SealKeys keys, bench_keys());
    SCKPT_ASSIGN(auto file, store.open(path));
    SCKPT_ASSIGN(const Manifest::Hashes hashes, Manifest::hash(*file));
    SCKPT_ASSIGN(Manifest manifest, Manifest::open(std::move(file)));
    SCKPT_TRY(keys.verify(hashes.parts, manifest.seal));
    return manifest;
}

Result<Json> put(const Arguments& arguments) {
    SCKPT_ASSIGN(const auto store, open_top(arguments.store));
    SCKPT_ASSIGN(UniqueFd directory, open_file(arguments.image, O_RDONLY | O_DIRECTORY));
    SCKPT_ASSIGN(const SealKeys keys, bench_keys());
    PutRequest request;
    request.directory = "job-1-1";
    request.name = "ckpt-1-batch";
    request.seal = [&](std::string_view head, const Digest& rest) { return Result<Seal>(keys.seal({digest_of(head), rest})); };
    if (!arguments.no_pages) {
        SCKPT_ASSIGN(request.pages, page_runs("criu", directory.get()));
    }
    std::optional<Manifest> base;
    if (!arguments.base.empty()) {
        SCKPT_ASSIGN(base, open_manifest(*store, arguments.base));
        request.base = &*base;
    }
    const auto image = real_file_system(std::move(directory));
    SCKPT_ASSIGN(const StoredImage stored, Store(*store).put(*image, request, {.threads = arguments.threads}));
    Json packs = Json::array();
    for (const PackUse& pack : stored.packs) packs.push_back({{"path", pack.path}, {"bytes", pack.bytes}, {"used", pack.used}});
    return Json{
        {"manifest", stored.manifest}, {"plain_bytes", stored.plain_bytes}, {"new_bytes", stored.new_bytes}, {"packs", packs}};
}

Result<Json> get(const Arguments& arguments) {
    SCKPT_ASSIGN(const auto store, open_top(arguments.store));
    SCKPT_ASSIGN(const auto target, open_top(arguments.target));
    SCKPT_ASSIGN(const Manifest manifest, open_manifest(*store, arguments.manifest));
    SCKPT_TRY(Store(*store).get(manifest, *target, {.threads = arguments.threads}));
    if (arguments.verify) SCKPT_TRY(verify_files(manifest, *target, {}, arguments.threads));
    return Json{{"plain_bytes", manifest.plain_bytes}};
}

Result<Json> check(const Arguments& arguments) {
    SCKPT_ASSIGN(const auto store, open_top(arguments.store));
    SCKPT_ASSIGN(const Manifest manifest, open_manifest(*store, arguments.manifest));
    SCKPT_ASSIGN(const auto faults, Store(*store).check(manifest, {.threads = arguments.threads}));
    Json found = Json::array();
    for (const ChunkFault& fault : faults) found.push_back(fault.what);
    return Json{{"plain_bytes", manifest.plain_bytes}, {"faults", found}};
}

double seconds(const timeval& time) { return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6; }

int report(Result<Json> (*operation)(const Arguments&), const Arguments& arguments) {
    const auto begin = std::chrono::steady_clock::now();
    Result<Json> answer = operation(arguments);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (!answer) {
        std::fprintf(stderr, "store_tool: %s\n", answer.error().text.c_str());
        return 1;
    }
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    (*answer)["seconds"] = took.count();
    (*answer)["cpu_seconds"] = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    (*answer)["peak_rss"] = static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
    std::printf("%s\n", answer->dump().c_str());
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("the image store by itself, for measurements");
    Arguments arguments;
    app.require_subcommand(1);
    const auto add = [&](const char* name) {
        CLI::App* command = app.add_subcommand(name);
        command->add_option("store", arguments.store)->required();
        command->add_option("--threads", arguments.threads);
        return command;
    };
    CLI::App* put_command = add("put");
    put_command->add_option("image", arguments.image)->required();
    put_command->add_option("--base", arguments.base);
    put_command->add_flag("--no-pages", arguments.no_pages);
    CLI::App* get_command = add("get");
    get_command->add_option("manifest", arguments.manifest)->required();
    get_command->add_option("target", arguments.target)->required();
    get_command->add_flag("--verify", arguments.verify);
    CLI::App* check_command = add("check");
    check_command->add_option("manifest", arguments.manifest)->required();
    CLI11_PARSE(app, argc, argv);
    if (*put_command) return report(put, arguments);
    return report(*get_command ? get : check, arguments);
}
