// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt.yaml: two levels, sections of keys. libyaml's events give every line number, and let anchors, aliases and tags be
// refused, which a tree of nodes would hide. One table, kFields, tells what may stand where; it is all that a new key needs.
#include "common/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <format>
#include <optional>
#include <ranges>
#include <set>
#include <variant>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

#include "common/bytes.h"
#include "common/fd.h"
#include "common/interval.h"

namespace sckpt {

namespace {

// ---- what may stand in the file ----

enum class Kind { count, time, size, path, host, user, names, hosts };
using Target = std::variant<std::string*, int*, std::int64_t*, std::uint64_t*, std::vector<std::string>*>;

struct Field {
    std::string_view section, key;
    Kind kind;
    std::int64_t low, high;  // count: its bounds; time: in seconds; size: in bytes; path, host, user: of its length
    Target (*target)(Config&);
    bool required = false;
};

constexpr std::int64_t kHour = 3600, kDay = 86400;
constexpr std::int64_t kAgeMax = 3660 * kDay;
constexpr std::int64_t kPathMax = 1024;    // leaves room for what is made below it
constexpr std::int64_t kSizeMax = std::int64_t{1} << 60;
constexpr std::int64_t kSocketMax = 107;   // sun_path of unix(7), with its NUL

constexpr std::array kFields = {
    Field{"controller", "host", Kind::host, 1, 253, [](Config& c) -> Target { return &c.controller.host; }, true},
    Field{"controller", "port", Kind::count, 1, 65535, [](Config& c) -> Target { return &c.controller.port; }},
    Field{"controller", "state_directory", Kind::path, 1, kPathMax,
          [](Config& c) -> Target { return &c.controller.state_directory; }},
    Field{"controller", "operators", Kind::names, 0, 1000, [](Config& c) -> Target { return &c.controller.operators; }},
    Field{"controller", "poll_interval", Kind::time, 1, kHour, [](Config& c) -> Target { return &c.controller.poll_seconds; }},
    Field{"node", "socket", Kind::path, 1, kSocketMax, [](Config& c) -> Target { return &c.node.socket; }},
    Field{"node", "fast_tier", Kind::path, 1, kPathMax, [](Config& c) -> Target { return &c.node.fast_tier; }},
    Field{"node", "fast_tier_size", Kind::size, 1 << 20, kSizeMax, [](Config& c) -> Target { return &c.node.fast_tier_bytes; }},
    Field{"node", "criu", Kind::path, 1, kPathMax, [](Config& c) -> Target { return &c.node.criu; }},
    Field{"node", "dump_timeout", Kind::time, 1, kDay, [](Config& c) -> Target { return &c.node.dump_timeout_seconds; }},
    Field{"node", "dump_streams", Kind::count, 0, 4096, [](Config& c) -> Target { return &c.node.dump_streams; }},
    Field{"node", "restore_timeout", Kind::time, 1, kDay, [](Config& c) -> Target { return &c.node.restore_timeout_seconds; }},
    Field{"node", "controller_wait", Kind::time, 1, 30 * kDay,
          [](Config& c) -> Target { return &c.node.controller_wait_seconds; }},
    Field{"relay", "hosts", Kind::hosts, 0, 1000, [](Config& c) -> Target { return &c.relay.hosts; }},
    Field{"relay", "port", Kind::count, 1, 65535, [](Config& c) -> Target { return &c.relay.port; }},
    Field{"relay", "upstream", Kind::host, 1, 253, [](Config& c) -> Target { return &c.relay.upstream; }},
    Field{"store", "directory", Kind::path, 1, kPathMax, [](Config& c) -> Target { return &c.store.directory; }, true},
    Field{"store", "user", Kind::user, 1, 256, [](Config& c) -> Target { return &c.store.user; }},
    Field{"store", "key", Kind::path, 1, kPathMax, [](Config& c) -> Target { return &c.store.key; }},
    Field{"store", "timeout", Kind::time, 1, kDay, [](Config& c) -> Target { return &c.store.timeout_seconds; }},
    Field{"drain", "streams", Kind::count, 1, 64, [](Config& c) -> Target { return &c.drain.streams; }},
    Field{"drain", "urgent_streams", Kind::count, 1, 1024, [](Config& c) -> Target { return &c.drain.urgent_streams; }},
    Field{"drain", "threads", Kind::count, 1, 64, [](Config& c) -> Target { return &c.drain.threads; }},
    Field{"drain", "bandwidth", Kind::size, 0, kSizeMax, [](Config& c) -> Target { return &c.drain.bandwidth; }},
    Field{"drain", "cluster_streams", Kind::count, 1, 100'000, [](Config& c) -> Target { return &c.drain.cluster_streams; }},
    Field{"drain", "cluster_urgent_streams", Kind::count, 1, 100'000,
          [](Config& c) -> Target { return &c.drain.cluster_urgent_streams; }},
    Field{"drain", "cluster_bandwidth", Kind::size, 0, kSizeMax, [](Config& c) -> Target { return &c.drain.cluster_bandwidth; }},
    Field{"policy", "interval", Kind::time, kMinIntervalSeconds, kMaxIntervalSeconds,
          [](Config& c) -> Target { return &c.policy.interval_seconds; }},
    Field{"policy", "max_restarts", Kind::count, 0, 1000, [](Config& c) -> Target { return &c.policy.max_restarts; }},
    Field{"retention", "keep", Kind::count, 1, 100, [](Config& c) -> Target { return &c.retention.keep; }},
    Field{"retention", "keep_success", Kind::time, 0, kAgeMax,
          [](Config& c) -> Target { return &c.retention.keep_success_seconds; }},
    Field{"retention", "keep_failed", Kind::time, 0, kAgeMax,
          [](Config& c) -> Target { return &c.retention.keep_failed_seconds; }},
    Field{"retention", "max_age", Kind::time, 0, kAgeMax, [](Config& c) -> Target { return &c.retention.max_age_seconds; }},
    Field{"retention", "max_size", Kind::size, 0, kSizeMax, [](Config& c) -> Target { return &c.retention.max_size; }},
    Field{"retention", "user_quota", Kind::size, 0, kSizeMax, [](Config& c) -> Target { return &c.retention.user_quota; }},
    Field{"retention", "account_quota", Kind::size, 0, kSizeMax, [](Config& c) -> Target { return &c.retention.account_quota; }},
    Field{"retention", "interval", Kind::time, 1, 30 * kDay, [](Config& c) -> Target { return &c.retention.interval_seconds; }},
    Field{"retention", "backup_interval", Kind::time, 1, 30 * kDay,
          [](Config& c) -> Target { return &c.retention.backup_interval_seconds; }},
};

std::string full_name(const Field& field) { return std::format("{}.{}", field.section, field.key); }

// "a, b, c": what is known, for the message about what is not.
template <class Range>
std::string joined(Range&& names) {
    const std::set<std::string_view> sorted(names.begin(), names.end());
    std::string text;
    for (const auto name : sorted) text += (text.empty() ? "" : ", ") + std::string(name);
    return text;
}

// ---- values ----

// All of these say what is wrong with the value; the caller puts file, line and key in front.
Result<std::int64_t> parse_count(const std::string& text, std::int64_t low, std::int64_t high) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < low || value > high)
        return fail(Errc::invalid, std::format("\"{}\" is not a whole number from {} to {}", text, low, high));
    return value;
}

// A bare number is minutes to Slurm's users and seconds to everyone else, so here it must have a unit.
Result<std::int64_t> parse_time(const std::string& text, std::int64_t low, std::int64_t high) {
    if (!text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; }))
        return fail(Errc::invalid, std::format("\"{}\" has no unit; write for example \"15m\" or \"30s\"", text));
    const bool none = text == "0s" || text == "0m" || text == "0h" || text == "0d";  // no time at all to --ckpt
    SCKPT_ASSIGN(const std::int64_t seconds, none ? Result<std::int64_t>(0) : parse_seconds(text));
    if (seconds < low || seconds > high)
        return fail(Errc::invalid, std::format("\"{}\" is not from {} to {}", text, format_seconds(low), format_seconds(high)));
    return seconds;
}

// "512M", "16G", "1.5T" with powers of 1024, as Slurm's --mem has them; "0" where no limit may be asked for.
Result<std::uint64_t> parse_size(const std::string& text, std::int64_t low, std::int64_t high) {
    SCKPT_ASSIGN(const std::uint64_t bytes, parse_bytes(text));
    if (std::cmp_less(bytes, low) || std::cmp_greater(bytes, high))
        return fail(Errc::invalid, std::format("\"{}\" is not from {} to {}", text, format_bytes(static_cast<std::uint64_t>(low)),
                                               format_bytes(static_cast<std::uint64_t>(high))));
    return bytes;
}

Result<std::string> parse_path(const std::string& text, std::int64_t high) {
    if (!text.starts_with('/')) return fail(Errc::invalid, std::format("\"{}\" is not an absolute path", text));
    if (std::cmp_greater(text.size(), high)) return fail(Errc::invalid, std::format("the path is longer than {} bytes", high));
    if (std::ranges::any_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7f; }))
        return fail(Errc::invalid, "the path has a control character in it");
    if ((text + "/").contains("/../"))
        return fail(Errc::invalid, std::format("\"{}\" has \"..\" in it; write the path itself", text));
    return text;
}

// A name or address of a host, or a user's name: nothing that could mean more to what it is handed on to.
Result<std::string> parse_name(const std::string& text, std::string_view what, std::string_view also, std::int64_t high) {
    const auto allowed = [also](unsigned char c) {
        return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || also.contains(static_cast<char>(c));
    };
    if (text.empty() || text[0] == '-' || std::cmp_greater(text.size(), high) || !std::ranges::all_of(text, allowed))
        return fail(Errc::invalid, std::format("\"{}\" is not {}", text, what));
    return text;
}

template <class T>
Result<> put(const Target& target, Result<T> value) {
    SCKPT_ASSIGN(*std::get<T*>(target), std::move(value));
    return {};
}

Result<> set_scalar(const Field& field, const std::string& text, Config& config) {
    const Target target = field.target(config);
    switch (field.kind) {
        case Kind::count: {
            SCKPT_ASSIGN(const std::int64_t value, parse_count(text, field.low, field.high));
            if (auto* const narrow = std::get_if<int*>(&target)) **narrow = static_cast<int>(value);
            else *std::get<std::int64_t*>(target) = value;
            return {};
        }
        case Kind::time: return put<std::int64_t>(target, parse_time(text, field.low, field.high));
        case Kind::size: return put<std::uint64_t>(target, parse_size(text, field.low, field.high));
        case Kind::path: return put<std::string>(target, parse_path(text, field.high));
        case Kind::host: return put<std::string>(target, parse_name(text, "a host name or an address", ".:-_", field.high));
        case Kind::user: return put<std::string>(target, parse_name(text, "a user's name", "._-", field.high));
        case Kind::names: return fail(Errc::invalid, "a list is wanted here, for example [root, slurm]");
        case Kind::hosts: return fail(Errc::invalid, "a list is wanted here, for example [head1, head2]");
    }
    return fail(Errc::internal, "a kind of value that is not known");
}

// ---- the file's structure ----

class Event {
   public:
    Event() = default;
    Event(Event&& other) noexcept : event_(std::exchange(other.event_, yaml_event_t{})) {}
    Event& operator=(Event&& other) noexcept { std::swap(event_, other.event_); return *this; }
    ~Event() { yaml_event_delete(&event_); }

    yaml_event_t* raw() { return &event_; }
    yaml_event_type_t type() const { return event_.type; }
    std::size_t line() const { return event_.start_mark.line + 1; }
    std::string text() const { return {reinterpret_cast<const char*>(event_.data.scalar.value), event_.data.scalar.length}; }
    // A key with nothing after its colon.
    bool is_nothing() const {
        return type() == YAML_SCALAR_EVENT && event_.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
               event_.data.scalar.length == 0;
    }

   private:
    yaml_event_t event_{};
};

class Reader {
   public:
    Reader(std::string shown, const std::string& bytes) : shown_(std::move(shown)) {
        usable_ = yaml_parser_initialize(&parser_) != 0;
        if (usable_) yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;
    ~Reader() { if (usable_) yaml_parser_delete(&parser_); }

    Result<Config> read();

   private:
    Result<Event> next();
    Result<> sections();
    Result<> section(const std::string& name);
    Result<> value(const Field& field);
    Result<> names(const Field& field);
    Result<> remember(const std::string& name, std::size_t line);

    std::unexpected<Error> wrong(std::size_t line, std::string_view name, std::string_view what) const {
        return fail(Errc::invalid, std::format("{}:{}: {}{}{}", shown_, line, name, name.empty() ? "" : ": ", what));
    }

    std::string shown_;
    yaml_parser_t parser_{};
    bool usable_ = false;
    std::set<std::string> seen_;
    Config config_;
};

// The next event. Anchors, aliases and tags have no use in this file; refused, they cannot surprise.
Result<Event> Reader::next() {
    Event event;
    if (!usable_) return fail(Errc::internal, "the YAML parser cannot be set up");
    if (yaml_parser_parse(&parser_, event.raw()) == 0)
        return wrong(parser_.problem_mark.line + 1, "", parser_.problem != nullptr ? parser_.problem : "this is not YAML");
    const yaml_event_t& raw = *event.raw();
    const unsigned char *anchor = nullptr, *tag = nullptr;
    switch (event.type()) {
        case YAML_SCALAR_EVENT: anchor = raw.data.scalar.anchor; tag = raw.data.scalar.tag; break;
        case YAML_SEQUENCE_START_EVENT: anchor = raw.data.sequence_start.anchor; tag = raw.data.sequence_start.tag; break;
        case YAML_MAPPING_START_EVENT: anchor = raw.data.mapping_start.anchor; tag = raw.data.mapping_start.tag; break;
        case YAML_ALIAS_EVENT: return wrong(event.line(), "", "aliases are not accepted in this file; write the value itself");
        default: break;
    }
    if (anchor != nullptr)
        return wrong(event.line(), "", "anchors are not accepted in this file; write the value where it is wanted");
    if (tag != nullptr) return wrong(event.line(), "", "tags are not accepted in this file");
    return event;
}

Result<> Reader::remember(const std::string& name, std::size_t line) {
    if (!seen_.insert(name).second) return wrong(line, name, "given twice");
    return {};
}

Result<> Reader::names(const Field& field) {
    auto* const target = std::get<std::vector<std::string>*>(field.target(config_));
    for (;;) {
        SCKPT_ASSIGN(const Event item, next());
        if (item.type() == YAML_SEQUENCE_END_EVENT) return {};
        if (item.type() != YAML_SCALAR_EVENT) return wrong(item.line(), full_name(field), "a list of plain names is wanted here");
        auto name = field.kind == Kind::hosts ? parse_name(item.text(), "a host name or an address", ".:-_", 253)
                                              : parse_name(item.text(), "a user's name", "._-", 256);
        if (!name) return wrong(item.line(), full_name(field), name.error().text);
        if (std::cmp_equal(target->size(), field.high)) return wrong(item.line(), full_name(field), "the list is too long");
        target->push_back(std::move(*name));
    }
}

Result<> Reader::value(const Field& field) {
    SCKPT_ASSIGN(const Event event, next());
    if (event.type() == YAML_SEQUENCE_START_EVENT && (field.kind == Kind::names || field.kind == Kind::hosts)) return names(field);
    if (event.type() != YAML_SCALAR_EVENT) return wrong(event.line(), full_name(field), "a single value is wanted here");
    if (event.is_nothing())
        return wrong(event.line(), full_name(field), "the value is missing; take the key out for the default");
    if (auto set = set_scalar(field, event.text(), config_); !set) return wrong(event.line(), full_name(field), set.error().text);
    return {};
}

Result<> Reader::section(const std::string& name) {
    const auto in_section = [&](const Field& field) { return field.section == name; };
    SCKPT_ASSIGN(const Event start, next());
    if (start.is_nothing()) return {};  // all its keys are commented out
    if (start.type() != YAML_MAPPING_START_EVENT) return wrong(start.line(), name, "keys with values are wanted below a section");
    for (;;) {
        SCKPT_ASSIGN(const Event key, next());
        if (key.type() == YAML_MAPPING_END_EVENT) return {};
        if (key.type() != YAML_SCALAR_EVENT) return wrong(key.line(), name, "a key must be a plain word");
        const std::string full = name + "." + key.text();
        const auto field = std::ranges::find(kFields, full, full_name);
        if (field == kFields.end())
            return wrong(key.line(), full,
                         "unknown key; known here: " +
                             joined(kFields | std::views::filter(in_section) | std::views::transform(&Field::key)));
        SCKPT_TRY(remember(full, key.line()));
        SCKPT_TRY(value(*field));
    }
}

Result<> Reader::sections() {
    for (;;) {
        SCKPT_ASSIGN(const Event key, next());
        if (key.type() == YAML_MAPPING_END_EVENT) return {};
        if (key.type() != YAML_SCALAR_EVENT) return wrong(key.line(), "", "a section's name must be a plain word");
        const std::string name = key.text();
        if (!std::ranges::contains(kFields, name, &Field::section))
            return wrong(key.line(), name, "unknown section; known: " + joined(kFields | std::views::transform(&Field::section)));
        SCKPT_TRY(remember(name, key.line()));
        SCKPT_TRY(section(name));
    }
}

Result<Config> Reader::read() {
    SCKPT_ASSIGN(Event event, next());  // the start of the stream
    SCKPT_ASSIGN(event, next());
    if (event.type() == YAML_DOCUMENT_START_EVENT) {
        SCKPT_ASSIGN(event, next());
        if (event.type() != YAML_MAPPING_START_EVENT)
            return wrong(event.line(), "", "sections (controller:, node:, relay:, store:, drain:, policy:, retention:) are wanted here");
        SCKPT_TRY(sections());
        SCKPT_ASSIGN(event, next());  // the end of the document
        SCKPT_ASSIGN(event, next());
        if (event.type() != YAML_STREAM_END_EVENT)
            return wrong(event.line(), "", "a second document begins here; one is accepted");
    }
    for (const Field& field : kFields)
        if (field.required && !seen_.contains(full_name(field)))
            return fail(Errc::invalid,
                        std::format("{}: {}: missing; it has no default and must be given", shown_, full_name(field)));
    return std::move(config_);
}

// The file decides what root runs (node.criu) and where it writes, so nobody else may have written it.
Result<std::string> read_trusted(const std::string& path) {
    SCKPT_ASSIGN(const UniqueFd fd, open_file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return fail_errno("stat " + path);
    if (!S_ISREG(st.st_mode)) return fail(Errc::invalid, path + " is not a regular file");
    if (st.st_uid != 0 && st.st_uid != ::geteuid())
        return fail(Errc::denied, std::format("{} is owned by user id {}: it must be owned by root, or by the user who runs this",
                                              path, st.st_uid));
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return fail(Errc::denied, std::format("{} can be written by its group or by others (mode {:04o}): chmod go-w it", path,
                                              st.st_mode & 07777));
    return read_all(fd.get(), path, 1u << 20);
}

}  // namespace

Result<Config> load_config(const std::string& path) {
    auto bytes = read_trusted(path);
    if (!bytes) return std::unexpected(bytes.error().context("the configuration"));
    return Reader(path, *bytes).read();
}

}  // namespace sckpt
