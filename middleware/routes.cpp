// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>

#include <spillway/middleware/routes.hpp>

namespace spillway::middleware {
namespace {

constexpr std::string_view any_method = "*";

// Takes the part up to the next slash off the front of `path`. False in `more`: it was the last.
std::string_view take_segment(std::string_view& path, bool& more) noexcept {
  const std::size_t end = path.find('/');
  more = end != std::string_view::npos;
  const std::string_view segment = path.substr(0, end);
  path.remove_prefix(more ? end + 1 : path.size());
  return segment;
}

const Route* by_method(const std::vector<const Route*>& routes, std::string_view method) noexcept {
  const auto find = [&](std::string_view wanted) -> const Route* {
    for (const Route* const route : routes)
      if (route->method == wanted) return route;
    return nullptr;
  };
  if (routes.empty()) return nullptr;
  if (const Route* const exact = find(method)) return exact;
  if (method == "HEAD") {
    if (const Route* const get = find("GET")) return get;
  }
  return find(any_method);
}

[[noreturn]] void refuse(const RouteSpec& spec, std::string_view why) {
  throw std::invalid_argument("route \"" + std::string(spec.method) + " " +
                              std::string(spec.path_template) + "\": " + std::string(why));
}

}  // namespace

struct Routes::Draft {
  std::map<std::string, std::unique_ptr<Draft>, std::less<>> children;
  std::unique_ptr<Draft> parameter;
  std::vector<const Route*> here;
  std::vector<const Route*> rest;
};

Routes::Routes(std::span<const RouteSpec> specs) {
  if (specs.size() > routes_max)
    throw std::invalid_argument("more than " + std::to_string(routes_max) + " routes");
  routes_.reserve(specs.size() + 1);  // Nodes point into it.
  routes_.push_back({std::string(any_method), "(unmatched)", "(unmatched)", 0});
  Draft root;
  for (const RouteSpec& spec : specs) {
    if (!spec.path_template.starts_with('/')) refuse(spec, "the template does not begin with '/'");
    const bool any = spec.method.empty() || spec.method == any_method;
    Route route{std::string(any ? any_method : spec.method),
                std::string(spec.path_template),
                {},
                static_cast<std::uint32_t>(routes_.size())};
    route.name = any ? route.path_template : route.method + " " + route.path_template;
    Draft* at = &root;
    std::vector<const Route*>* ends = nullptr;
    std::string_view path = spec.path_template.substr(1);
    for (bool more = true; more;) {
      const std::string_view segment = take_segment(path, more);
      const bool parameter =
          segment.size() > 2 && segment.starts_with('{') && segment.ends_with('}');
      const std::string_view inside = parameter ? segment.substr(1, segment.size() - 2) : segment;
      if (inside.find_first_of("{}") != std::string_view::npos)
        refuse(spec, "a segment is a literal or {name}, and a brace stands nowhere else");
      if (parameter && inside.ends_with("...")) {
        if (more) refuse(spec, "{name...} is not the last segment");
        ends = &at->rest;
        break;
      }
      std::unique_ptr<Draft>& next = parameter ? at->parameter : at->children[std::string(segment)];
      if (!next) next = std::make_unique<Draft>();
      at = next.get();
      ends = &at->here;
    }
    for (const Route* const other : *ends)
      if (other->method == route.method) refuse(spec, "fits the same requests as another one");
    routes_.push_back(std::move(route));
    ends->push_back(&routes_.back());
  }
  compile(root);
}

void Routes::compile(Draft& root) {
  nodes_.emplace_back();
  std::vector<std::pair<std::uint32_t, Draft*>> todo{{0, &root}};
  while (!todo.empty()) {
    const auto [index, from] = todo.back();
    todo.pop_back();
    nodes_[index].here = std::move(from->here);
    nodes_[index].rest = std::move(from->rest);
    nodes_[index].first_child = static_cast<std::uint32_t>(nodes_.size());
    nodes_[index].child_count = static_cast<std::uint32_t>(from->children.size());
    for (auto& [literal, child] : from->children) {  // Sorted, as the map is.
      todo.emplace_back(static_cast<std::uint32_t>(nodes_.size()), child.get());
      nodes_.emplace_back().literal = literal;
    }
    if (from->parameter) {
      nodes_[index].parameter = static_cast<std::uint32_t>(nodes_.size());
      todo.emplace_back(nodes_[index].parameter, from->parameter.get());
      nodes_.emplace_back();
    }
  }
}

const Route& Routes::match(std::string_view method, std::string_view path) const noexcept {
  if (!path.starts_with('/')) return unmatched();
  const Route* const found = find(0, method, path.substr(1), false);
  return found != nullptr ? *found : unmatched();
}

// A node is reached by one way only, so that a search looks at each at most once.
const Route* Routes::find(std::uint32_t number, std::string_view method, std::string_view rest,
                          bool at_end) const noexcept {
  const Node& node = nodes_[number];
  if (at_end) return by_method(node.here, method);
  std::string_view behind = rest;
  bool more = false;
  const std::string_view segment = take_segment(behind, more);
  const auto first = nodes_.begin() + node.first_child;
  const auto last = first + node.child_count;
  const auto child =
      std::lower_bound(first, last, segment,
                       [](const Node& one, std::string_view text) { return one.literal < text; });
  if (child != last && child->literal == segment) {
    const auto index = static_cast<std::uint32_t>(child - nodes_.begin());
    if (const Route* const found = find(index, method, behind, !more)) return found;
  }
  if (node.parameter != 0 && !segment.empty()) {
    if (const Route* const found = find(node.parameter, method, behind, !more)) return found;
  }
  return by_method(node.rest, method);
}

}  // namespace spillway::middleware
