// The views by name. A view has: the tags it reads of each run, a figure made from them, and which choices it offers.

import { bias } from "./view_bias.js";
import { lag } from "./view_lag.js";
import { spectrum } from "./view_spectrum.js";
import { timestep } from "./view_timestep.js";
import { training } from "./view_training.js";

export const VIEWS = { lag, timestep, training, bias, spectrum };
