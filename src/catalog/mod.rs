//! Tables, columns, types, functions and placement, as the planner needs them; pure.
