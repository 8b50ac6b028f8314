// SPDX-License-Identifier: GPL-3.0-or-later
#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>
#include <cstdlib>

#include "cli/output.h"

namespace sckpt::cli {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using nlohmann::json;

void unquote(json& value, const FieldDescriptor& field);

// protobuf writes 64-bit numbers as strings; for sizes and times a plain number is easier on every reader.
void unquote_members(json& object, const Descriptor& type) {
    for (int i = 0; i < type.field_count(); ++i) {
        const FieldDescriptor& field = *type.field(i);
        const auto member = object.find(std::string(field.name()));
        if (member == object.end()) continue;
        if (!member->is_array()) unquote(*member, field);
        else
            for (json& element : *member) unquote(element, field);
    }
}

void unquote(json& value, const FieldDescriptor& field) {
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) return unquote_members(value, *field.message_type());
    if (!value.is_string()) return;
    const std::string text = value.get<std::string>();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_INT64) value = std::strtoll(text.c_str(), nullptr, 10);
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64) value = std::strtoull(text.c_str(), nullptr, 10);
}

}  // namespace

Result<json> to_json(const google::protobuf::Message& message) {
    google::protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
#if GOOGLE_PROTOBUF_VERSION >= 5026000
    options.always_print_fields_with_no_presence = true;
#else
    options.always_print_primitive_fields = true;
#endif
    std::string text;
    if (const auto status = google::protobuf::util::MessageToJsonString(message, &text, options); !status.ok())
        return fail(Errc::internal, "the answer cannot be written as JSON: " + status.ToString());
    json document = json::parse(text, nullptr, false);
    if (!document.is_object()) return fail(Errc::internal, "the answer's JSON is not an object");
    unquote_members(document, *message.GetDescriptor());
    return document;
}

std::string json_text(const json& document) { return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n"; }

}  // namespace sckpt::cli
